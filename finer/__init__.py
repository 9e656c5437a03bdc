"""What makes boxes finer than the model's grid: fractional edges, shifted views, contrast. Pure functions on arrays."""
