"""Who notices, tells and repairs: probers, states of objects, alert rules, remediation."""
