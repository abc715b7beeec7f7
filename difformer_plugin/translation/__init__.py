"""How is a trained model used, and passed on? Files of raw text, and exported models."""
