"""`upstream-guard check`: predicts the windows of manifests, or of a running cluster.

Read (`sources`, `cluster`) → look (`analysis`) → set aside (`suppressions`, `baseline`) → show (`formats`, `fix`).
"""
