"""How hard tests try to break something, and with which random numbers: little and always the same, or as asked for.

`make trust` asks for more; what it found is found again with the SEED that it printed.
"""

import os

SEED = int(os.environ.get("SEED", 0))
EXAMPLES = int(os.environ.get("EXAMPLES", 300))  # matrices for what holds for all
MUTATIONS = int(os.environ.get("MUTATIONS", 400))  # inputs of each reader of foreign bytes
KILLS = int(os.environ.get("KILLS", 8))  # of runs and censuses
