//! An LDAP directory (Debian's `slapd`) on loopback, with what a scenario puts into it.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use crate::certificates::certify;
use crate::ports::reserve;
use crate::process::{self, Running};
use crate::{tools, wait};

/// The root of the directory.
pub const BASE: &str = "dc=example,dc=com";
/// The account that searches, and its password.
pub const SEARCHER: (&str, &str) = ("cn=searcher,dc=example,dc=com", "a word for searching");

/// A directory. Dropping it ends it.
#[derive(Debug)]
pub struct Slapd {
    folder: tempfile::TempDir,
    plain: u16,
    tls: u16,
    running: Option<Running>,
}

impl Slapd {
    /// A directory that is not running, with a certificate of its own CA.
    ///
    /// # Panics
    /// When that cannot be prepared.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::TempDir::with_prefix("atoll-slapd-").expect("a temporary folder");
        certify(folder.path(), "127.0.0.1");
        let [plain, tls] = [(); 2].map(|()| reserve(Ipv4Addr::LOCALHOST.into()).port());
        Self { folder, plain, tls, running: None }
    }

    /// Its address without TLS (or with StartTLS), and with it.
    #[must_use]
    pub fn urls(&self) -> [String; 2] {
        [format!("ldap://127.0.0.1:{}", self.plain), format!("ldaps://127.0.0.1:{}", self.tls)]
    }

    /// The file with its CA.
    #[must_use]
    pub fn ca(&self) -> String {
        self.at("ca.crt")
    }

    fn at(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Ends it: an outage.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Starts it with these people (name and password) and groups (name and members, which are whole
    /// distinguished names), and nothing of before.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(&mut self, people: &[(&str, &str)], groups: &[(&str, &[&str])]) {
        self.running = None;
        let database = self.folder.path().join("db");
        let _ = std::fs::remove_dir_all(&database);
        std::fs::create_dir(&database).expect("a folder");
        let settings = format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\nmodulepath /usr/lib/ldap\n\
             moduleload back_mdb\npidfile {}\nTLSCACertificateFile {}\nTLSCertificateFile {}\n\
             TLSCertificateKeyFile {}\ndatabase mdb\nsuffix {BASE}\ndirectory {}\n\
             access to attrs=userPassword by anonymous auth by * none\n\
             access to * by dn.exact=\"{}\" read by self read by * none\n",
            self.at("pid"),
            self.at("ca.crt"),
            self.at("node.crt"),
            self.at("node.key"),
            database.display(),
            SEARCHER.0,
        );
        std::fs::write(self.folder.path().join("slapd.conf"), settings).expect("settings");
        let mut entries = format!(
            "dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example\n\n\
             dn: {}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n\
             cn: searcher\nuserPassword: {}\n\n",
            SEARCHER.0, SEARCHER.1
        );
        for folder in ["people", "groups"] {
            let _ = write!(entries, "dn: ou={folder},{BASE}\nobjectClass: organizationalUnit\n\n");
        }
        for (name, password) in people {
            let _ = write!(
                entries,
                "dn: {}\nobjectClass: inetOrgPerson\nuid: {name}\ncn: {name}\nsn: {name}\n\
                 mail: {name}@example.com\nuserPassword: {password}\n\n",
                person(name)
            );
        }
        for (name, members) in groups {
            let _ = write!(entries, "dn: {}\nobjectClass: groupOfNames\ncn: {name}\n", group(name));
            for member in *members {
                let _ = writeln!(entries, "member: {member}");
            }
            entries.push('\n');
        }
        let file = self.folder.path().join("entries.ldif");
        std::fs::write(&file, entries).expect("entries");
        let conf = self.at("slapd.conf");
        process::succeed(tools::packaged("slapadd", "slapd").args(["-f", &conf, "-l"]).arg(&file));
        let urls = self.urls().join(" ");
        let mut command = tools::packaged("slapd", "slapd");
        command.args(["-d", "0", "-f", &conf, "-h", &urls]);
        let log = self.folder.path().join("log");
        let running = Running::start(&mut command, &log);
        let port = self.plain;
        wait::until("the directory answers", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(|_| ())
        });
        self.running = Some(running);
    }
}

impl Default for Slapd {
    fn default() -> Self {
        Self::new()
    }
}

/// The distinguished name of a person.
#[must_use]
pub fn person(name: &str) -> String {
    format!("uid={name},ou=people,{BASE}")
}

/// The distinguished name of a group.
#[must_use]
pub fn group(name: &str) -> String {
    format!("cn={name},ou=groups,{BASE}")
}
