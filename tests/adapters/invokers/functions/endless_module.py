"""A module whose import never ends."""

import os
import time

os.write(1, b"called\n")
time.sleep(3600)
