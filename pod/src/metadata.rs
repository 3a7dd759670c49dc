//! What a pod is told of the metadata service (appc spec, "App Container Metadata Service").

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The port of the service unless it is told another: upstream's.
pub const PORT: u16 = 18112;
/// The variable of the apps' environment with the URL that a pod's part of the service is found at.
pub const ENVIRONMENT_VARIABLE: &str = "AC_METADATA_URL";

/// What a pod is known by to the service, and nobody else knows: 128 random bits, as upstream has them.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token([u8; 16]);

impl Token {
    /// Of these bits, which have to be random.
    pub fn new(bits: [u8; 16]) -> Self {
        Self(bits)
    }
}

/// Not the token: that is nobody's business.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Token {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        // The text is no part of the error: it may be somebody's token.
        let wrong = || Error::Invalid("a token is 32 hexadecimal digits".into());
        let is_hex = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_hex) {
            return Err(wrong());
        }
        u128::from_str_radix(text, 16).map(|bits| Self(bits.to_be_bytes())).map_err(|_| wrong())
    }
}

impl TryFrom<String> for Token {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Token> for String {
    fn from(token: Token) -> Self {
        token.to_string()
    }
}

/// What a pod's directory keeps of its registration, for its stage1 and whoever collects it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// By which the service knows the pod.
    pub token: Token,
    /// The service's port.
    pub port: u16,
}

/// The URL of a pod's part of the service, which the pod reaches at `host`.
pub fn url(host: IpAddr, port: u16, token: &Token) -> String {
    format!("http://{}/{token}", SocketAddr::new(host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let token = Token::new(std::array::from_fn(|n| n as u8));
        assert_eq!(token.to_string(), "000102030405060708090a0b0c0d0e0f");
        assert_eq!(token.to_string().parse::<Token>().unwrap(), token);
        assert_eq!(format!("{token:?}"), "Token(..)");
        for bad in ["", "0", "000102030405060708090A0B0C0D0E0F", "+00102030405060708090a0b0c0d0e0f"] {
            assert!(bad.parse::<Token>().is_err(), "{bad}");
        }
    }

    #[test]
    fn urls() {
        let token = Token::new([0; 16]);
        let url = |host: &str| url(host.parse().unwrap(), 7, &token);
        assert_eq!(url("192.0.2.1"), format!("http://192.0.2.1:7/{}", "0".repeat(32)));
        assert_eq!(url("fd00::1"), format!("http://[fd00::1]:7/{}", "0".repeat(32)));
    }
}
