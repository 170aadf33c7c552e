"""Any quantized file beside its original: what it spends, what it loses, and how far both are from the best."""

from rdlib.extras import extra

with extra("census", "rdlib.audit"):
    from rdlib.audit.run import audit
