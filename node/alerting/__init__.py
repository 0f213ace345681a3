"""What somebody must look into: `rules` when, `finding` where a rule holds, `raising` opens and closes alerts, `local`
what this node keeps of them for itself (alerts.db), `reading` shows them."""
