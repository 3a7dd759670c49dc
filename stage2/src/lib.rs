//! The supervisor: starts, watches and ends the apps; PID 1 of the pod in both isolations
