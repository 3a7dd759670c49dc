//! Pods as data: manifests, isolators, plans, the stage1 ABI, supervisor messages; no system calls
