"""Which noise? Forward processes, samplers and schedules as mathematics on tensors; no fairseq."""
