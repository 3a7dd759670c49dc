//! What both stage1s share: the pod's parent process
