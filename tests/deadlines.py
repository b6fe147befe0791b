"""How long a test waits for another process or page: what takes longer hangs, however busy the machine is."""

LAST_RESORT_S = 900
