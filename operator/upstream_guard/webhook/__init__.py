"""Admission: pods are mutated, guards validated; own certificates, own registration."""
