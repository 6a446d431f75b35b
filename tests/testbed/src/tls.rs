//! Certificates for servers on this machine: an authority and one server certificate signed by it.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::Result;
use crate::folder::Folder;

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority, for `tlsCAFile`.
    pub ca_file: PathBuf,
    /// The server's certificate and key in one file, for `tlsCertificateKeyFile`.
    pub server_file: PathBuf,
}

/// Makes certificates good for `localhost` and `127.0.0.1`. Members of a set show the same one to each other, so it
/// serves clients, too.
pub fn certificates(folder: &Folder) -> Result<Certificates> {
    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "testbed authority");
    let authority_certificate = authority.self_signed(&authority_key)?;

    let server_key = KeyPair::generate()?;
    let mut server = CertificateParams::new(vec!["localhost".to_string(), "127.0.0.1".to_string()])?;
    server.distinguished_name.push(DnType::CommonName, "testbed server");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let server_certificate = server.signed_by(&server_key, &Issuer::new(authority, authority_key))?;

    Ok(Certificates {
        ca_file: folder.secret("ca.pem", &authority_certificate.pem())?,
        server_file: folder.secret("server.pem", &(server_certificate.pem() + &server_key.serialize_pem()))?,
    })
}
