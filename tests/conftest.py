"""Settings for every test."""

import os

from hypothesis import HealthCheck, settings

# Machines that run the tests are shared and slow at times: how long an example takes says nothing.
settings.register_profile(
    "shared",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    # The same examples on every run of CI; at a desk, new ones each time.
    derandomize=bool(os.environ.get("CI")),
)
settings.load_profile("shared")
