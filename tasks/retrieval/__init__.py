"""Image-text and image-to-image retrieval: locked-image tuning, ranks by counting, faiss search."""
