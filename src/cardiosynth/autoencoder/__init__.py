"""The autoencoder: images to latents and back, its loss, its stage, and the verdict on what it keeps."""
