"""Diffusion with a growing length: tokens go missing and come back."""
