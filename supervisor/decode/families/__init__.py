"""What is known of each VAE architecture, one file each; nothing here imports ComfyUI."""
