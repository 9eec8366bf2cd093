//! The policy of outlier ejection that follows from a builder's and a service config.

use std::sync::Arc;

use super::Settings;
use crate::{
    config::{Outliers, OwnEjection, ServiceConfig},
    ejection::EjectionPolicy,
    error::InvalidSetting,
};

impl Settings {
    /// The policy with this config.
    pub(super) fn ejection_with(
        &self,
        config: &ServiceConfig,
    ) -> Result<Arc<EjectionPolicy>, InvalidSetting> {
        let mut policy = self.ejection.clone();
        if let Some(outliers) = &config.balancing.outliers {
            apply_outliers(&mut policy, outliers);
        }
        apply_own(&mut policy, &config.own.ejection);
        policy.validate()?;
        Ok(Arc::new(policy))
    }
}

/// Sets what gRFC A50 has. An algorithm that is absent there is off.
fn apply_outliers(policy: &mut EjectionPolicy, outliers: &Outliers) {
    policy.window = outliers.interval;
    policy.base_time = outliers.base_time;
    policy.max_time = outliers.max_time;
    policy.max_share = outliers.max_share;
    match &outliers.success_rate {
        None => policy.success_rate_deviations = 0.0,
        Some(rate) => {
            policy.success_rate_deviations = rate.deviations;
            policy.success_rate_instances = rate.instances;
            policy.success_rate_calls = rate.calls;
        }
    }
    match &outliers.failing_share {
        None => policy.failing_share = 1.0,
        Some(share) => {
            policy.failing_share = share.threshold;
            policy.failing_share_instances = share.instances;
            policy.min_calls = share.calls;
        }
    }
}

/// Sets what the config has under the key of this crate.
fn apply_own(policy: &mut EjectionPolicy, own: &OwnEjection) {
    macro_rules! replace {
        ($($field:ident)*) => { $(if let Some(value) = own.$field { policy.$field = value; })* };
    }
    replace!(
        enabled consecutive_transport consecutive_status consecutive_overtaken window min_calls
        failing_share failing_share_instances success_rate_deviations success_rate_instances
        success_rate_calls base_time max_time max_share slow_start
    );
}
