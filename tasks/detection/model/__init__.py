"""OWL-ViT's heads and losses on any backbone."""
