"""What holds for all tests: hypothesis measures no times (a deadline fails on a slow machine)."""

from hypothesis import settings

settings.register_profile("fednode", deadline=None)
settings.load_profile("fednode")
