"""The models at work: loading, scheduling, admission and enhancing. No HTTP."""
