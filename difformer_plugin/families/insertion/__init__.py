"""Discrete diffusion whose length grows: tokens go missing as well as masked, and come back."""
