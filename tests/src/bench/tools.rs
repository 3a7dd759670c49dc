//! The programs that measure what goes through a network: iperf3 has a stream, and NetPIPE a byte there and back. Both are Debian's, and
//! are the same in pods, in other VMs and beside them. `tests/bench-files/serve` is the other end of both.

use serde_json::Value;

use crate::Error;

/// Of NetPIPE, in each of its trials, of which the best counts.
const ROUND_TRIPS: u32 = 200;

/// The shell's command that sends a stream of so many MiB to a server.
pub fn stream(address: &str, mib: u32) -> String {
    format!("exec iperf3 --client {address} --bytes {mib}M --json")
}

/// The shell's command that has a byte go to a server and back. Its other output is a file.
pub fn round_trip(address: &str) -> String {
    format!("exec NPtcp -h {address} -p 0 -l 1 -u 1 -n {ROUND_TRIPS} -o /dev/null 2>&1")
}

/// The MiB a second that the server has received.
pub fn stream_mib_a_second(told: &str) -> Result<f64, Error> {
    let report: Value =
        serde_json::from_str(told).map_err(|error| format!("iperf3 has said: {told}: {error}"))?;
    let bits = report.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    let bits = bits.filter(|bits| *bits > 0.0).ok_or_else(|| format!("iperf3 has said: {told}"))?;
    Ok(bits / 8.0 / f64::from(1 << 20))
}

/// The microseconds there and back; NetPIPE tells those of one way.
pub fn round_trip_us(told: &str) -> Result<f64, Error> {
    let line = told.lines().find(|line| line.trim_end().ends_with("usec"));
    let one_way = line.and_then(|line| line.split_whitespace().rev().nth(1)?.parse::<f64>().ok());
    Ok(2.0 * one_way.ok_or_else(|| format!("NetPIPE has said: {told}"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_tell() {
        let report =
            r#"{"end":{"sum_sent":{"bits_per_second":1},"sum_received":{"bits_per_second":838860800.0}}}"#;
        assert_eq!(stream_mib_a_second(report).unwrap(), 100.0);
        assert!(stream_mib_a_second(r#"{"error":"unable to connect"}"#).is_err());
        assert!(stream_mib_a_second("").is_err());
        let report = "Now starting the main loop\n  0:       1 bytes    200 times -->      2.31 Mbps in       3.31 usec\n";
        assert_eq!(round_trip_us(report).unwrap(), 6.62);
        assert!(round_trip_us("Client: Cannot Connect! errno=111").is_err());
    }
}
