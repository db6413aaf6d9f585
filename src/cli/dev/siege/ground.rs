//! The database that a siege is about.

use url::Url;

use crate::error::BoxError;
use crate::sandbox::Line;
use crate::store::proof;

/// A database of our own, gone afterwards.
pub(super) struct Ground {
    /// For us.
    pub(super) url: String,
    /// For the services, over the bad line.
    pub(super) url_of_services: String,
    pub(super) line: Option<Line>,
    drop: Drop,
}

enum Drop {
    File(String),
    Database(Url, String),
}

impl Ground {
    pub(super) async fn take(given: &str) -> Result<Self, BoxError> {
        let name = format!("hookyard_chaos_{:08x}", rand::random::<u32>());
        if let Some(file) = given.strip_prefix("sqlite://") {
            let file = format!("{}-{name}", file.split('?').next().unwrap_or_default());
            let url = format!("sqlite://{file}");
            return Ok(Self {
                url_of_services: url.clone(),
                url,
                line: None,
                drop: Drop::File(file),
            });
        }
        let server = Url::parse(given).map_err(|_| "--database is not a URL")?;
        if !server.scheme().starts_with("postgres") {
            return Err("--database begins with postgres:// or sqlite://".into());
        }
        let own = proof::create_database(&server, &name).await?;
        let addresses = own
            .socket_addrs(|| Some(5432))
            .map_err(|_| "--database names no host that can be found")?;
        let line = Line::start(addresses).await?;
        let mut over_line = own.clone();
        let moved = over_line
            .set_ip_host(line.address().ip())
            .and_then(|()| over_line.set_port(Some(line.address().port())));
        moved.map_err(|()| "--database has no host")?;
        Ok(Self {
            url: own.into(),
            url_of_services: over_line.into(),
            line: Some(line),
            drop: Drop::Database(server, name),
        })
    }

    pub(super) async fn leave(self) -> Result<(), BoxError> {
        match self.drop {
            Drop::File(file) => {
                for ending in ["", "-wal", "-shm"] {
                    std::fs::remove_file(format!("{file}{ending}")).ok();
                }
                Ok(())
            }
            Drop::Database(server, name) => proof::drop_database(&server, &name).await,
        }
    }

    /// Says where it is, without a password.
    pub(super) fn whereabouts(&self) -> &str {
        match &self.drop {
            Drop::File(file) => file,
            Drop::Database(_, name) => name,
        }
    }

    /// Returns how many answers to COMMIT were lost on the line.
    pub(super) fn cuts(&self) -> u64 {
        self.line.as_ref().map_or(0, Line::cuts)
    }

    /// Returns the password in its URL.
    pub(super) fn password(&self) -> Option<String> {
        let url = Url::parse(&self.url).ok()?;
        url.password().map(str::to_owned)
    }
}
