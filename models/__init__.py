"""From epoch to image: EEG encoder, conditioner and diffusion pipeline."""
