"""ComfyUI's side: nodes and adaptors. The only code that imports ComfyUI."""
