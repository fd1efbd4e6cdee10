"""Tests with a real libvirtd and real guests; run as root."""

import pytest

pytest.register_assert_rewrite("tests.libvirt.answers")  # says what was answered instead
