"""Who teaches? A teacher's translations as training targets, resumable and in shards."""
