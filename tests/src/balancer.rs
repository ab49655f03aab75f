//! A load balancer in front of a mesh: nginx, which sends each request to the next node.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use tempfile::TempDir;

use crate::http::Client;
use crate::mesh::Mesh;
use crate::ports::reserve;
use crate::process::Running;
use crate::tools::packaged;
use crate::wait;

/// One nginx. It ends when it is dropped.
#[derive(Debug)]
pub struct Balancer {
    authority: String,
    _nginx: Running,
    _folder: TempDir,
}

impl Balancer {
    /// Starts it in front of all nodes of `mesh`, without sticky sessions.
    ///
    /// # Panics
    /// When it does not come up; the message holds its last words.
    #[must_use]
    pub fn before(mesh: &Mesh) -> Self {
        Self::start(mesh, "", "proxy_set_header Host $http_host;")
    }

    /// Starts it in front of all nodes of `mesh`, and ends TLS there, with the files that
    /// [`crate::certificates::certify`] wrote into `folder`. To the nodes it comes from
    /// [`Self::ADDRESS`], and calls them by a name of its own.
    ///
    /// # Panics
    /// When it does not come up; the message holds its last words.
    #[must_use]
    pub fn ending_tls_before(mesh: &Mesh, folder: &Path) -> Self {
        let folder = folder.display();
        let files =
            format!("ssl_certificate {folder}/node.crt; ssl_certificate_key {folder}/node.key;");
        let proxy = format!(
            "proxy_bind {}; proxy_set_header Host inside.invalid;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
            Self::ADDRESS
        );
        Self::start(mesh, &files, &proxy)
    }

    /// Starts it in front of all nodes of `mesh`. It comes from [`Self::ADDRESS`] and says which
    /// client asks, behind what that client says itself.
    ///
    /// # Panics
    /// When it does not come up; the message holds its last words.
    #[must_use]
    pub fn telling_who_asks(mesh: &Mesh) -> Self {
        let proxy = format!(
            "proxy_bind {}; proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
            Self::ADDRESS
        );
        Self::start(mesh, "", &proxy)
    }

    /// The address from which one comes that ends TLS or says who asks.
    pub const ADDRESS: &str = "127.0.0.77";

    fn start(mesh: &Mesh, files: &str, proxy: &str) -> Self {
        let folder = TempDir::with_prefix("atoll-nginx-").expect("a temporary folder");
        let authority = reserve(Ipv4Addr::LOCALHOST.into()).to_string();
        let mut nodes = String::new();
        for at in 0..mesh.nodes().len() {
            writeln!(nodes, "server {};", mesh.client(at).authority()).expect("text grows");
        }
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {}/{what};\n", folder.path().display()))
            .concat();
        let settings = format!(
            "daemon off; worker_processes 1; user root; error_log stderr;
            pid {folder}/pid;
            events {{ worker_connections 512; }}
            http {{
                access_log off; {temporary}
                client_max_body_size 0;
                upstream mesh {{ {nodes} }}
                server {{
                    listen {authority}{secure};
                    {files}
                    location / {{
                        proxy_pass http://mesh;
                        proxy_http_version 1.1;
                        {proxy}
                        proxy_request_buffering off;
                        proxy_buffering off;
                        proxy_read_timeout 900s;
                    }}
                }}
            }}",
            folder = folder.path().display(),
            secure = if files.is_empty() { "" } else { " ssl http2" },
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, settings).expect("settings can be written");
        let mut command = packaged("nginx", "nginx-light");
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file);
        let mut nginx = Running::start(&mut command, &folder.path().join("log"));
        let client = Client::of(&format!("http://{authority}"));
        wait::until("nginx answers", || {
            assert!(nginx.ended().is_none(), "nginx ended:\n{}", nginx.last_words());
            client.get("/v2/").ok()
        });
        Self { authority, _nginx: nginx, _folder: folder }
    }

    /// What clients call it: host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}
