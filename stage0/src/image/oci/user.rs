//! Who an OCI image's process runs as: the configuration's `user` and the accounts of the image itself.

use std::fs::File;
use std::io::Read;

use erofs::{EntryPath, Kind, Reader};

use crate::image::MAX_JSON_BYTES;
use crate::image::error::Error;

/// The accounts that an image knows.
#[derive(Debug, Default)]
pub struct Accounts {
    /// `/etc/passwd`.
    passwd: String,
    /// `/etc/group`.
    group: String,
}

/// As appc has it: names or numbers.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub group: String,
    pub supplementary_gids: Vec<u32>,
}

impl Accounts {
    /// Those of a rendered image; none if it has no such files.
    pub fn of_image(image: &File) -> Result<Self, Error> {
        let reader = Reader::open(image.try_clone().map_err(Error::read("the image"))?)?;
        let text = |path: &[u8]| -> Result<String, Error> {
            let path = EntryPath::in_root(path).map_err(erofs::Error::from)?;
            let Ok(Some(inode)) = reader.resolve(&path) else { return Ok(String::new()) };
            if inode.kind() != Kind::Regular || inode.size() > MAX_JSON_BYTES {
                return Ok(String::new());
            }
            let mut bytes = Vec::new();
            reader.read_file(&inode)?.read_to_end(&mut bytes).map_err(Error::read(path.to_string()))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Self { passwd: text(b"etc/passwd")?, group: text(b"etc/group")? })
    }

    /// From `USER[:GROUP]`; nothing means root. Without a group the user's own groups are meant (OCI image spec,
    /// "config.User"); a user without an account gets the group of his own number, as upstream has it.
    pub fn identity(&self, text: &str) -> Identity {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let user = if user.is_empty() { "0" } else { user };
        if let Some(group) = group.filter(|group| !group.is_empty()) {
            return Identity { user: user.into(), group: group.into(), supplementary_gids: Vec::new() };
        }
        match self.account(user) {
            Some(account) => Identity {
                user: user.into(),
                group: account.gid.to_string(),
                supplementary_gids: self.memberships(account.name),
            },
            None => Identity { user: user.into(), group: user.into(), supplementary_gids: Vec::new() },
        }
    }

    /// The account of a name, else of a number.
    fn account(&self, user: &str) -> Option<Account<'_>> {
        let accounts = || self.passwd.lines().filter_map(Account::parse);
        let uid = user.parse::<u32>().ok();
        accounts().find(|account| account.name == user).or_else(|| accounts().find(|a| Some(a.uid) == uid))
    }

    fn memberships(&self, name: &str) -> Vec<u32> {
        let member_of = |line: &str| {
            let mut fields = line.split(':').skip(2);
            let gid = fields.next()?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == name).then_some(gid)
        };
        self.group.lines().filter_map(member_of).collect()
    }
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> Account<'a> {
    /// A line of passwd(5).
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let mut numbers = fields.skip(1).map(|number| number.parse().ok());
        Some(Self { name, uid: numbers.next()??, gid: numbers.next()?? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities() {
        let accounts = Accounts {
            passwd: "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34::/:\n5:x:77:78::/:\n".into(),
            group: "wheel:x:10:root,www\nwww:x:34:\nlog:x:4:www\n".into(),
        };
        let cases = [
            ("", "0", "0", vec![10]),
            ("www", "www", "34", vec![10, 4]),
            ("33", "33", "34", vec![10, 4]),
            ("www:log", "www", "log", vec![]),
            ("1001", "1001", "1001", vec![]),
            ("5", "5", "78", vec![]),
            (":log", "0", "log", vec![]),
            ("nobody", "nobody", "nobody", vec![]),
        ];
        for (text, user, group, supplementary_gids) in cases {
            let expected = Identity { user: user.into(), group: group.into(), supplementary_gids };
            assert_eq!(accounts.identity(text), expected, "{text:?}");
        }
    }
}
