"""The audit log: who did what to whose access, in a form in which no later change goes unnoticed."""
