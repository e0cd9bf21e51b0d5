//! The proxies of the comparison, each with one thread and the recommended settings for keep-alive connections. All of them
//! add `X-Forwarded-For`, none writes an access log.

use std::{ffi::OsString, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result};

use crate::{
    bench::{
        callgrind::Callgrind,
        daemon::{Core, Daemon, Start},
    },
    http_client::HttpClient,
    process::wait_for,
};

/// `master_process off` runs the worker in the started process, so that it is killed with it. By default, connections are
/// closed after a thousand requests on both sides.
const NGINX: &str = "\
daemon off;
master_process off;
worker_processes 1;
error_log stderr warn;
pid @FOLDER@/nginx.pid;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_body_temp_path @FOLDER@/nginx-body;
  proxy_temp_path @FOLDER@/nginx-proxy;
  fastcgi_temp_path @FOLDER@/nginx-fastcgi;
  uwsgi_temp_path @FOLDER@/nginx-uwsgi;
  scgi_temp_path @FOLDER@/nginx-scgi;
  upstream origin {
    server @ORIGIN@;
    keepalive 256;
    keepalive_requests 1000000000;
    keepalive_timeout 1h;
  }
  server {
    listen @LISTEN@;
    location / {
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_set_header Host $http_host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }
  }
}
";

/// Without `http-reuse always`, the first request of each client waits for a new connection.
const HAPROXY: &str = "\
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  option forwardfor
  http-reuse always
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout http-keep-alive 1h
frontend clients
  bind @LISTEN@
  default_backend origins
backend origins
  server origin @ORIGIN@
";

/// `use_remote_address` adds `X-Forwarded-For`. Envoy adds a request id by default, as the activator does.
const ENVOY: &str = r#"
static_resources:
  listeners:
  - name: clients
    address: {socket_address: {address: @LISTEN_IP@, port_value: @LISTEN_PORT@}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          use_remote_address: true
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: "/"}
                route: {cluster: origin}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: origin
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: origin
      endpoints:
      - lb_endpoints:
        - endpoint: {address: {socket_address: {address: @ORIGIN_IP@, port_value: @ORIGIN_PORT@}}}
"#;

/// A proxy that Rouse is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proxy {
    Nginx,
    Haproxy,
    Envoy,
}

impl Proxy {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
        }
    }

    /// Returns the configuration.
    fn config(self, listen: SocketAddr, origin: SocketAddr, folder: &Path) -> String {
        let template = match self {
            Self::Nginx => NGINX,
            Self::Haproxy => HAPROXY,
            Self::Envoy => ENVOY,
        };
        let values = [
            ("@FOLDER@", folder.display().to_string()),
            ("@LISTEN@", listen.to_string()),
            ("@LISTEN_IP@", listen.ip().to_string()),
            ("@LISTEN_PORT@", listen.port().to_string()),
            ("@ORIGIN@", origin.to_string()),
            ("@ORIGIN_IP@", origin.ip().to_string()),
            ("@ORIGIN_PORT@", origin.port().to_string()),
        ];
        values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value))
    }

    /// Starts it on the measured core, between `listen` and `origin`, and waits until it responds.
    pub(super) async fn start(
        self,
        program: &Path,
        listen: SocketAddr,
        origin: SocketAddr,
        folder: &Path,
        callgrind: Option<&Callgrind>,
    ) -> Result<Daemon> {
        let config = folder.join(format!("{}.{}", self.name(), if self == Self::Envoy { "yaml" } else { "conf" }));
        std::fs::write(&config, self.config(listen, origin, folder)).context("cannot write a configuration")?;
        let mut args: Vec<OsString> = match self {
            Self::Nginx => vec!["-e".into(), "stderr".into(), "-c".into()],
            Self::Haproxy => vec!["-db".into(), "-f".into()],
            Self::Envoy => {
                ["--concurrency", "1", "--disable-hot-restart", "--log-level", "error", "-c"].map(Into::into).to_vec()
            }
        };
        args.push(config.into());
        let start = Start { name: self.name(), program, args, env: vec![], core: Core::Measured, folder, callgrind };
        let mut daemon = start.start()?;
        let http_client = HttpClient::new(listen);
        wait_for(&format!("a response through {}", self.name()), Duration::from_secs(30), async || {
            daemon.check_alive()?;
            Ok(http_client.get("any", "/echo").await.is_ok_and(|response| response.status.is_success()))
        })
        .await?;
        Ok(daemon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_has_no_placeholder_left() {
        let (listen, origin) = ("127.0.0.1:81".parse().unwrap(), "127.0.0.1:82".parse().unwrap());
        for proxy in [Proxy::Nginx, Proxy::Haproxy, Proxy::Envoy] {
            let config = proxy.config(listen, origin, Path::new("/f"));
            assert!(!config.replace("@type", "").contains('@'), "{config}");
            assert!(config.contains("81") && config.contains("82"), "{config}");
        }
    }
}
