"""From a trained denoiser to a Case: solvers, confidence, and the Generator that a user calls."""
