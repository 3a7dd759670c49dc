//! The SELinux labels of what an app with a context writes to: its root's overlay and its own tmpfs, and the pod's shared memory
//! if all apps have the same context. Volumes keep the labels that the host gives them.

use crate::selinux::Context;

use super::{AppPlan, Operation, Plan};

impl Plan {
    /// Adds the labels; `files` is what the host's policy has for files of containers.
    pub fn label(&mut self, files: &Context) {
        let labels: Vec<_> = self.apps.iter().map(|app| label_of(app, files)).collect();
        for (app, label) in self.apps.iter_mut().zip(&labels) {
            let Some(label) = label else { continue };
            app.setup.iter_mut().for_each(|operation| label_tmpfs(operation, label));
            let of_pod = self.outside.iter_mut().chain(&mut self.setup);
            of_pod.for_each(|operation| label_root(operation, app, label));
        }
        if let Some((Some(first), others)) = labels.split_first()
            && others.iter().all(|other| other.as_ref() == Some(first))
        {
            let shared = self.setup.iter_mut().filter(|operation| is_shared_memory(operation));
            shared.for_each(|operation| label_tmpfs(operation, first));
        }
    }
}

fn label_of(app: &AppPlan, files: &Context) -> Option<Context> {
    app.process.selinux.as_ref().map(|context| context.label_like(files))
}

fn label_tmpfs(operation: &mut Operation, label: &Context) {
    if let Operation::Mount { file_system, options, .. } = operation
        && file_system == "tmpfs"
    {
        let separator = if options.is_empty() { "" } else { "," };
        options.push_str(&format!("{separator}{}", label.mount_option()));
    }
}

fn label_root(operation: &mut Operation, app: &AppPlan, label: &Context) {
    if let Operation::Overlay { target, label: of_overlay, .. } = operation
        && target.file_name() == Some(app.name.as_str().as_ref())
    {
        *of_overlay = Some(label.clone());
    }
}

fn is_shared_memory(operation: &Operation) -> bool {
    matches!(operation, Operation::Mount { target, .. } if target.ends_with("shm"))
}
