"""Diffusion in latent space: the process, the denoiser contract, the networks and what conditions them."""
