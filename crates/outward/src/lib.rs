//! The way out: HTTP to the servers of others, with TLS where their address says so. Whom TLS may trust is what the
//! system trusts; `SSL_CERT_FILE` names others.

use std::error::Error;
use std::io;
use std::sync::Arc;

use hyper::Uri;
use hyper::body::Body;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

/// A client that sends bodies of the type `B`. It keeps connections for the next request, and is cheap to clone.
pub type Client<B> = hyper_util::client::legacy::Client<HttpsConnector<HttpConnector>, B>;

/// Why nothing can be sent to an address.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Not an address.
    #[error("its address begins with http:// or https:// and names a host")]
    Form,
    /// It has a name and password in it.
    #[error("names and passwords in an address are not supported; a key in its path is")]
    Password,
    /// The system's list of certificates cannot be read.
    #[error("the system's certificates cannot be read ({0}); https needs them: install ca-certificates")]
    Certificates(io::Error),
}

/// A client for the server at an address. Nothing is sent yet.
pub fn client<B>(address: &Uri) -> Result<Client<B>, AddressError>
where
    B: Body + Send,
    B::Data: Send,
{
    let authority = address.authority().ok_or(AddressError::Form)?;
    if authority.as_str().contains('@') {
        return Err(AddressError::Password);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let tls = tls.map_err(|e| AddressError::Certificates(io::Error::other(e)))?;
    let tls = match address.scheme_str() {
        // Not even the list is read where it is not needed.
        Some("http") => tls.with_root_certificates(rustls::RootCertStore::empty()),
        Some("https") => tls.with_native_roots().map_err(AddressError::Certificates)?,
        _ => return Err(AddressError::Form),
    };
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls.with_no_client_auth());
    let connector = connector.https_or_http().enable_http1().build();
    Ok(hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector))
}

/// An error with what it came from, which is what tells a refused connection from an unknown host.
pub fn causes(error: &dyn Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Whether TLS, and not the network, is why a request failed: it will not go better a moment later.
pub fn is_distrust(error: &(dyn Error + 'static)) -> bool {
    // An error of the system is no source of what it wraps.
    let wrapped = error.downcast_ref::<io::Error>().and_then(|error| error.get_ref());
    error.is::<rustls::Error>()
        || wrapped.is_some_and(|wrapped| is_distrust(wrapped))
        || error.source().is_some_and(is_distrust)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body that is never sent.
    type Nothing = String;

    #[test]
    fn addresses_are_checked() {
        for bad in ["localhost:8545", "ftp://node.example", "/path"] {
            let address = bad.parse().unwrap();
            assert!(matches!(client::<Nothing>(&address), Err(AddressError::Form)), "{bad:?}");
        }
        let address = "http://me:secret@node.example".parse().unwrap();
        assert!(matches!(client::<Nothing>(&address), Err(AddressError::Password)));
        assert!(client::<Nothing>(&"http://node.example/v3/key".parse().unwrap()).is_ok());
    }
}
