"""Pure decisions: functions from frozen values to values. No I/O, no clock, no logging."""
