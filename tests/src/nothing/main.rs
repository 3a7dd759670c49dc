//! A CNI plugin without work: what a network of it costs a pod is what rkt does for it. The benchmark has it.

fn main() {
    if std::env::var("CNI_COMMAND").is_ok_and(|command| command == "ADD") {
        println!(r#"{{"cniVersion":"1.0.0","interfaces":[],"ips":[],"dns":{{}}}}"#);
    }
}
