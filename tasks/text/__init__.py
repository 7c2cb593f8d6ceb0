"""Text towers, tokenizers and prompts: what retrieval and detection share."""
