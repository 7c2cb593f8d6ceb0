"""Image-to-image retrieval: labelled sets and landmarks."""
