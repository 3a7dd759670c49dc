//! rkt: the command line, images, and pods' life on disk.

mod apparmor;
mod cli;
mod commands;
mod config;
mod cpu_template;
mod doctor;
mod host;
mod image;
mod image_name;
mod kvm;
mod landlock;
mod log_reader;
mod network;
mod output;
mod pods;
mod progress;
mod read_only;
mod registration;
mod remove;
mod selinux;
mod sockets;
mod stage1;
mod store;
mod timeline;
mod trust;
mod users;
mod volumes;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use cli::{Action, ImageCommand};

fn main() -> ExitCode {
    let started = timeline::now_us();
    let arguments: Result<Vec<String>, _> =
        std::env::args_os().map(std::ffi::OsString::into_string).collect();
    let Ok(arguments) = arguments else {
        eprintln!("rkt: an argument is not UTF-8");
        return ExitCode::from(pod::abi::EXIT_ERROR);
    };
    let (mut globals, action) = match cli::parse(&arguments) {
        Ok(parsed) => parsed,
        Err(stop) => return report(&stop),
    };
    let (name, fails_with_one) = (action.name(), action.fails_with_one());
    let result = configure(&mut globals).and_then(|()| carry_out(&globals, action, started));
    match result {
        Ok(code) => code,
        // Nobody reads the rest, as in `rkt list | head`.
        Err(error) if is_broken_pipe(error.as_ref()) => ExitCode::from(pod::abi::EXIT_ERROR),
        Err(error) => {
            eprint!("{}", render(name, error.as_ref()));
            ExitCode::from(if fails_with_one { 1 } else { commands::failure(name, error.as_ref()) })
        }
    }
}

/// What the command line leaves to the configuration, as far as it concerns all commands.
fn configure(globals: &mut cli::Globals) -> Result<(), Box<dyn Error>> {
    if globals.is_directory_default
        && let Some(directory) = config::data_directory(globals)?
    {
        globals.directory = directory;
    }
    Ok(())
}

fn carry_out(globals: &cli::Globals, action: Action, started: u64) -> Result<ExitCode, Box<dyn Error>> {
    match action {
        Action::Run { flags, line } => match commands::run::run(globals, &flags, &line, started) {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
        Action::Prepare(line) => commands::run::prepare(globals, &line),
        Action::RunPrepared { pod, flags } => {
            match commands::run::run_prepared(globals, &flags, &pod, started) {
                Ok(never) => match never {},
                Err(error) => Err(error),
            }
        }
        Action::Fetch(flags) => commands::images::fetch(globals, &flags),
        Action::Trust(flags) => commands::trust::trust(globals, &flags),
        Action::Image(command) => image_command(globals, command),
        Action::Gc(collection) => commands::pods::gc(globals, collection),
        Action::Rm { pods } => commands::pods::rm(globals, &pods),
        Action::Enter(flags) => match commands::enter::enter(globals, &flags) {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
        Action::AppAdd { pod, app } => commands::add::add(globals, &pod, &app),
        Action::AppRemove(app) => commands::app::remove(globals, &app),
        Action::AppList { pod, no_legend } => commands::app::list(globals, &pod, no_legend),
        Action::AppStatus { app, format } => commands::app::tell(globals, &app, format),
        Action::AppChange { app, action } => commands::app::change(globals, &app, action),
        Action::Attach { pod, flags } => match commands::enter::attach(globals, &pod, &flags) {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
        Action::PortForward(flags) => match commands::enter::port_forward(globals, &flags) {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
        Action::Export(flags) => commands::export::export(globals, &flags),
        Action::Stop { pods, force } => commands::stop::stop(globals, &pods, force),
        Action::Status { pod, flags } => commands::status::status(globals, &pod, flags),
        Action::Logs { pod, flags } => commands::logs::logs(globals, &pod, &flags),
        Action::CatManifest { pod, pretty } => commands::status::cat_manifest(globals, &pod, pretty),
        Action::List(flags) => commands::pods::list(globals, flags),
        Action::MetadataService { port } => commands::metadata_service::metadata_service(port),
        Action::Doctor(format) => commands::doctor(globals, format),
        Action::Config { pretty } => commands::manual::config(globals, pretty),
        Action::Completion(shell) => commands::manual::completion(shell),
        Action::Manual(directory) => commands::manual::manual(&directory),
        Action::Version => commands::version(),
    }
}

fn image_command(globals: &cli::Globals, command: ImageCommand) -> Result<ExitCode, Box<dyn Error>> {
    match command {
        ImageCommand::List(flags) => commands::images::list(globals, &flags),
        ImageCommand::Rm { images } => commands::image::rm(globals, &images),
        ImageCommand::Gc { grace_period } => commands::image::gc(globals, grace_period),
        ImageCommand::Verify { images } => commands::image::verify(globals, &images),
        ImageCommand::Export { overwrite, image, output } => {
            commands::image::export(globals, &image, &output, overwrite)
        }
        ImageCommand::Extract(flags) => commands::image::extract(globals, &flags),
        ImageCommand::Render(flags) => commands::image::render(globals, &flags),
        ImageCommand::Fetch { .. } => Err(commands::images::OlderName.into()),
        ImageCommand::CatManifest { form, image } => {
            commands::image::cat_manifest(globals, &image, form.pretty_print)
        }
    }
}

fn report(stop: &cli::Stop) -> ExitCode {
    // There is nobody to tell if the streams are closed.
    let _ = match stop.to_stdout {
        true => std::io::stdout().write_all(stop.text.as_bytes()),
        false => std::io::stderr().write_all(stop.text.as_bytes()),
    };
    ExitCode::from(stop.code)
}

fn is_broken_pipe(error: &(dyn Error + 'static)) -> bool {
    let io = error.downcast_ref::<std::io::Error>();
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An error and its causes as upstream prints them: each a step further in.
fn render(command: &str, error: &dyn Error) -> String {
    let mut text = format!("{command}: {error}\n");
    let mut cause = error.source();
    let mut indent = 2;
    while let Some(error) = cause {
        text.push_str(&format!("{:indent$}└─{error}\n", ""));
        cause = error.source();
        indent += 2;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_a_tree() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Link(&'static str, #[source] Option<Box<Link>>);
        let error = Link("a", Some(Box::new(Link("b", Some(Box::new(Link("c", None)))))));
        assert_eq!(render("run", &error), "run: a\n  └─b\n    └─c\n");
    }
}
