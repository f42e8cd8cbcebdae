"""Thin scikit-learn facades over models, one file a family."""
