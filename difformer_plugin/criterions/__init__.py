"""Which objective? What a prediction of z_0 costs."""
