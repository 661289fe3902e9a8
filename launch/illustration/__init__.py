"""A base and an energy that can be looked at: on the line and on curves in the plane, trained like everything else."""
