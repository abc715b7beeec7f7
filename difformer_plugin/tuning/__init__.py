"""Which settings? The searches of `difformer tune` and `difformer factor`."""
