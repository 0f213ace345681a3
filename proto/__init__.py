"""The wire contract: fednode.proto, and the code that scripts/generate makes from it (never edited by hand)."""
