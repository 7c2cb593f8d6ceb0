"""Annotations, their pictures, and what training draws from them."""
