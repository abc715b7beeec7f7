"""Which settings? The search of `difformer tune` and of `difformer factor`."""
