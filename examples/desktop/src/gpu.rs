//! One GPU for the window and the models.

use std::sync::Arc;

use burn::tensor::wgpu::WgpuSetup as BurnSetup;
use eframe::egui_wgpu::{RenderState, WgpuSetup, WgpuSetupCreateNew};
use eframe::wgpu::{DeviceDescriptor, Features};
use eframe::{NativeOptions, Renderer};
use salamander::Device;

/// Has the window drawn by a device that models can compute on, too: with all that its adapter has.
pub fn draw_by_wgpu(mut options: NativeOptions) -> NativeOptions {
    options.renderer = Renderer::Wgpu;
    options.wgpu_options.wgpu_setup = WgpuSetup::CreateNew(WgpuSetupCreateNew {
        device_descriptor: Arc::new(|adapter| DeviceDescriptor {
            required_features: adapter
                .features()
                .difference(Features::MAPPABLE_PRIMARY_BUFFERS)
                .difference(Features::all_experimental_mask()),
            required_limits: adapter.limits(),
            ..DeviceDescriptor::default()
        }),
        ..WgpuSetupCreateNew::without_display_handle()
    });
    options
}

/// The GPU that draws the window, if models can compute on it.
pub fn share(state: &RenderState) -> Option<Device> {
    let setup = BurnSetup {
        instance: state.instance.clone(),
        adapter: state.adapter.clone(),
        device: state.device.clone(),
        queue: state.queue.clone(),
        backend: state.adapter.get_info().backend,
    };
    Device::shared_wgpu(setup).ok()
}
